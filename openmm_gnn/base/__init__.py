"""What every other folder uses: units, errors, files, records, figures, worker processes."""
