"""SGLang: its own server application in front, the plan's policy in its scheduler.

Written for SGLang 0.5.23. Servers that users start themselves find the scheduler by SGLang's
plug-in point: see `blendplan.engines.sglang.plugin`.
"""
