"""An optimizer between two steps: its groups, parameters, state and layout."""
