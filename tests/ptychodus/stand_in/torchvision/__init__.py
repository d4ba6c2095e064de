"""Stands in for torchvision, whose published wheels do not load beside a torch without CUDA."""
