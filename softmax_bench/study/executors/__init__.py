"""Where jobs run: on this machine, on Ray, on Slurm."""
