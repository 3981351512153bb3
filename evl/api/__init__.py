"""What users call: one function for each thing that a command does.

settings (keywords → RunConfig), checking (check, prepare), stores (extract), training (train, sweep, few_shot), judging
(evaluate), predicting, vectors (embed), models (export), clips (a dataset for other training loops)
"""
