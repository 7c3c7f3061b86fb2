"""Runs: an experiment is prepared, trained in a run folder, resumed, replayed and compared.

prepare      an experiment from its config          check     its first step, before it starts
loop         the training loop                      fit       its steps for one experiment
history      position, metrics and status           folder    the files of a run
checkpoint   the state on the disk                  resume    under a changed config
replay       one step again, all of it shown        results   the files at the end
compare      hand-written rules and jax.grad        process   signals, compiled programs
"""
