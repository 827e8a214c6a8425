INSERT INTO {schema}.migrations (number, checksum) VALUES ({number}, '{checksum}');
