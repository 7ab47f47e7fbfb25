"""From the values of a Hugging Face ``config.json`` to a `ModelSpec`.

What enters is one JSON object; what leaves is a model, layer by layer, with remarks on what was
assumed. Rules are generic first: fields that many architectures share decide what a layer is. What
only a model's class knows stands in `families`, a row per model type.
"""
