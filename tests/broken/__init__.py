"""Drivers and stores with one fault each: a contract that lets one pass is worth nothing."""
