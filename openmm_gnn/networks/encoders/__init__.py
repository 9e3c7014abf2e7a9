"""Pretrained geometric networks that embed atoms."""
