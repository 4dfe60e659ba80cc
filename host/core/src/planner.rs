//! What one node does next: inputs in, actions out. Does nothing itself.
