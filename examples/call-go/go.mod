module call

go 1.19
