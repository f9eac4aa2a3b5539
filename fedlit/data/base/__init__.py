"""What data of every kind share: the data module, records, batches, partitions, groups that stay together."""
