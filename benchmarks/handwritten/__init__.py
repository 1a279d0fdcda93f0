"""The floor: PGD on the MNIST convnet as an expert writes it in each framework, without Keras.

Each module has ``make(weights, epsilon, step_size, steps)``, which takes Keras' weights (kernels HWIO) and returns
``attack(x, y) -> x_adv`` on channels-last NumPy arrays, one batch at a time.
"""
