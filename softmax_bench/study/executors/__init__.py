"""Where jobs run: on this machine, Ray or Slurm."""
