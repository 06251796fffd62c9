from kafka_jupyter.cli import main

main()
