"""Cost: what a request, a step and a whole run cost on a GPU.

In go names of a GPU and a model; out come specifications, KV-cache capacity, a `CostModel`, its
`StepTable` for hot loops, and the lower bound on any schedule's makespan. Knows nothing of
policies or engines.
"""
