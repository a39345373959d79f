"""Tests of copies from one store to another."""
