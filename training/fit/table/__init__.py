"""The paper's table: all of its rows, later systems beside them, and what each of them costs."""
