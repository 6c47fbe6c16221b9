"""Reports, built from real logs, and every way to forge one."""
