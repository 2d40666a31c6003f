module shopapi

go 1.24
