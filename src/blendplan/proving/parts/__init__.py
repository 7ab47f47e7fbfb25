"""The parts of a proof: what each measures, and how."""
