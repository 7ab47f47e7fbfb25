"""Planning larger than memory: many request files in, a folder with a plan for each replica out.

An external sort by prefix. Files are read into sorted runs on disk; ranges of the prompts' order
are cut at whole prompts of the runs; each range says what its requests cost; the ranges are divided
into parts of equal work; each part is planned as one engine's requests are. Every step is a task
that needs the memory of its run, range or part, and hands over files. Tasks run in processes of
this machine or on Ray. What is in here knows of no engine and of no plan but those it makes.
"""
