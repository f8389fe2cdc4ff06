"""Executors: where the jobs of a run or a campaign are done, one file each, registered by @register.

`local` starts processes on this machine, `ray` actors on a Ray cluster. Each is a `core.executor.Executor`; `jobs` is
the queue that they share, with its rule for jobs whose workers die.
"""
