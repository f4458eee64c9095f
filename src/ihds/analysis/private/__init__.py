"""Private twins of methods: the same question, from sums to which one person adds no more than is declared.

A twin has the name and the parameters of its method. It learns nothing of the rows before the noise:
centres, scales and levels come from the codebook, never from an agreement.
"""
