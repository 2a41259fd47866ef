"""How parameters move: plans, steps, frozen features. Knows neither photos nor studies."""
