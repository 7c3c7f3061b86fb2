"""Runs: an experiment is prepared, trained in a run folder, resumed, replayed and compared.

prepare      an experiment from its config          check     its first step, before it starts
loop         the training loop                      fit       its steps for one experiment
history      position, metrics and status           folder    the files of a run
checkpoint   the state on the disk                  resume    what a changed config means
replay       one step again, all of it shown        results   what a training leaves
compare      hand-written rules and jax.grad
"""
