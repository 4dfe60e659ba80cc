module example.com/outside-go

go 1.24
