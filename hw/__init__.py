"""The RTL in Amaranth, one component a file. Imports designs and algos only."""
