"""Planted defences, which the audit has to find, and encoders behind one."""
