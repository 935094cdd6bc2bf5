module assay.invalid/client

go 1.26
