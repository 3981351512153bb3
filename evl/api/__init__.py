"""What users call: one function for each thing that a command does.

settings (keywords → RunConfig), training (train, sweep, extract), judging (evaluate), vectors (embed), clips (a dataset
for other training loops)
"""
