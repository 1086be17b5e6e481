"""Which layer to use at a given size: a cost model of this machine, and findings of studies."""
