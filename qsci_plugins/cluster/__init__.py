"""Work shared by several machines, on Ray (the extra [cluster])."""
