"""Measurements that a user can repeat: ratios taken in one run against named baselines, printed with the machine."""
