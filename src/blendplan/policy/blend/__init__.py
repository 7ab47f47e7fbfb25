"""The policy `blend`: both kinds of work spread over the whole run.

`start` arranges the requests before the first step, `timetable` says when the memory-heavy ones
begin, `steps` decides in every step, `calendar` projects KV tokens, `learning` corrects
predictions.
"""
