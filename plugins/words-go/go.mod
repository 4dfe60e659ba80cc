module words-go

go 1.24
