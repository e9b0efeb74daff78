"""Every activity: its name, input, output, timeouts, retry policy and task queue. Pure; workflows import only this.

Payloads hold opaque ids, times and codes. All times are aware UTC. Each activity takes a batch and answers per run,
is safe to run twice (its implementation's docstring says why), and raises only for faults of the whole batch
(database away): what becomes of one run is a value.

The functions here carry name and types only. `activities/*.py` registers an implementation under the same name.
"""
