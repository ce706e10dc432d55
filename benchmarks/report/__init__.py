"""The cross-domain report: time, statistics, page, kills and reproduction."""
