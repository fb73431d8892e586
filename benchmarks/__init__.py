"""Side-by-side measurements that a reader can repeat: one command for each question, see README.md."""
