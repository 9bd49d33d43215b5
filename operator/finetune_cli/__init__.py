"""`finetune`: validates, plans and runs FineTuneJobs on this machine. It starts the trainer as a process and never imports it."""
