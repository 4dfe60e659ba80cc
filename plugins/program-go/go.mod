module example.com/program-go

go 1.24
