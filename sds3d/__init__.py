"""How a run goes: the loop, its record, exports, the embedded prior's training, and the command line."""
