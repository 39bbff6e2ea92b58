"""The curves and events of a job also in TensorBoard, trackio or Weights & Biases: ``workbench sink``.

A sink is fed from the job's files by number, wherever they are, so it may be started before, during or after the
training, on any computer, stopped, and started again. The run directory stays the truth; a sink is a copy.
"""
