"""Policy: which waiting request may be admitted now.

In go columns of predicted demand in a chosen order; out comes a policy, a state machine over
arrays that whoever runs the steps asks for the next admission: the simulated engine from inside
its step loop, a live engine through `LivePolicy`. Knows nothing of either.
"""
