"""Compose argv and conf/ into checked variants and settings."""
