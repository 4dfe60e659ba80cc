module example.com/words-go

go 1.24
