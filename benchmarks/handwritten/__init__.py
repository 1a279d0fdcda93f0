"""What an expert would write in each framework alone, without Keras and without kbl: the floor of every measurement.

Each module has a class `Floor` of the same methods; `weights` are those of kbl's network by "layer/weight", so that
all do the same work on the same numbers.
"""
