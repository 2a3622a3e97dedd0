"""TAO AutoML: its files, its runner's interface, over our tuner."""
