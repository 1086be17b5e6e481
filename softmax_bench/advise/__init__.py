"""Which layer to use at a given size: a cost model of this machine, and what studies have found."""
