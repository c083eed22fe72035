print("before it breaks")
raise ImportError("no such module")
