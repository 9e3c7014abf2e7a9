"""Networks: tensors in, tensors out, nothing of OpenMM."""
