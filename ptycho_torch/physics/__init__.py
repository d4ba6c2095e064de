"""Pure functions of tensors: propagation, patches, probe, forward model, noise."""
